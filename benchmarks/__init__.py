"""Speed, as ratios and medians in one run; never in a test."""

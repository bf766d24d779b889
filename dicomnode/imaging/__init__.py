"""From a DICOM instance to the model's input.

Pure transformation: no clock, no network, no files, no child process. A caller passes a
stream or a data set and gets arrays, a refusal (`NotEvaluated`) or an error
(`UndecodableImage`, `NotAnInstance`). The header's promises are checked before anything
is allocated for them, since the sender may be wrong or hostile.

=============  =============================================================
`reading`      bytes to a data set, with bounded inflation
`elements`     values of a header that may be broken
`limits`       the pixel description, checked against limits and against itself
`codestream`   what JPEG, JPEG-LS, JPEG 2000 and RLE streams say of themselves
`frames`       the first frame as stored values
`luts`         modality LUT, VOI LUT or window, polarity, as one table
`colour`       palette and RGB to grey
`pixels`       `grey8`: all of that in one call
`gate`         is this a frontal chest radiograph?
`words`, `appearance`  what the gate knows of words and looks
`profiles`     named, versioned: grey image to tensor
`preprocess`   gate, decode and profile in one call; image files
`display`      the picture under a heatmap, as PNG
=============  =============================================================
"""

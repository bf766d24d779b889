import com.pixelmed.validate.DicomSRValidator;

/** Validates many SR files in one JVM, since compiling the templates takes seconds. */
public class PixelmedBatch {
    public static void main(String[] files) throws Exception {
        DicomSRValidator validator = new DicomSRValidator();
        for (String file : files) {
            System.out.println("FILE " + file);
            System.out.println(validator.validate(file));
        }
    }
}

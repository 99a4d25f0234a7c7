"""Results as DICOM objects: a Structured Report and a Secondary Capture in the study of the radiograph."""

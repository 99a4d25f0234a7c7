"""The DICOM node: receives radiographs, reads them and sends the results to a destination, with a queue on disk."""

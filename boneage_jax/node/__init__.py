"""The DICOM node: it receives radiographs, reads them and sends the results on, through a queue on disk."""

"""What the doctor looks at: a file a subject, a function a line; in one process, which may be given up on."""

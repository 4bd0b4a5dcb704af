"""The HTTP reward and judge service; shares JSON with the rest of the project, never code."""

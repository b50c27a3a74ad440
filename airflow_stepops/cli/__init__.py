"""The command ``stepops``: one module for each noun, imported when it is asked for."""

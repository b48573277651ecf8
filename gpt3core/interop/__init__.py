"""Models as others write and read them: Hugging Face's layouts, to save and to load."""

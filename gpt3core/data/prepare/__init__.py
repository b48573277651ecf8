"""From raw text to token shards: a recipe, its stages, each cut into tasks whose files are whole or absent."""

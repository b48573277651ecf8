"""From a recipe to runs, and from runs to hours, memory and money; pure, nothing is started."""

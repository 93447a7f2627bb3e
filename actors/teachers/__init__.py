"""Teachers: policies that give demonstrations and labels, by kind."""

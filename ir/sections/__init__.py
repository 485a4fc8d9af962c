"""Graphs of tasks cut into sections: data and legality."""

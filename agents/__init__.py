"""Everything that acts in a world: scripted drivers, people, recorders and learners."""

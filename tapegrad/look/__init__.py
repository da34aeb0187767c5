"""Pictures of graphs, heat by source line, where what is not finite comes from, and how much was lost to rounding.

All read a graph (graph.py), which is made of the tape or of a program once, and then look at that alone."""

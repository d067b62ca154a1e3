"""One command for every table of the papers: runs of the studies, paper beside measured, and which claims held."""

IS_ALONE = True

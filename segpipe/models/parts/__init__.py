"""What architectures are built from. `models/*.py` are the architectures, one a paper; here lies what several share.

Files here may import each other; none has a SPEC, and none knows an architecture.
"""

"""GPU backends of cropkit: ``opencl`` and ``cuda``, from one kernel source.

Both enter by the entry point group ``cropkit.backends``, as other packages' backends do, and use
only public names of cropkit. Importing this package loads no driver and no framework.
"""

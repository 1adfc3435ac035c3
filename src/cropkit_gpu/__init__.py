"""GPU backends of cropkit: ``opencl`` and ``cuda``, from one kernel source.

They enter by the entry point group ``cropkit.backends``, like anyone's, and use nothing of
cropkit but its public names. Importing them touches no driver and no framework.
"""

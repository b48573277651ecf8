"""The way of a run on a GPU, gone where there is none: a CUDA build of torch on a stand-in for the driver."""

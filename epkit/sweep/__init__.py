"""Parameters -> runs -> stores, on this machine or on a Dask cluster."""

"""Dask as the carrier of hosts: a bridge process with the client, and a relay inside of each Dask worker."""

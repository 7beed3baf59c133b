"""Record runs in Tiled, and send their documents to `bluesky-jit serve`."""

from bluesky_jit.beamline.console import results_reader, subscribe_jit, subscribe_tiled

_, catalog, catalog_problem = subscribe_tiled(RE, settings)
jit_problem = subscribe_jit(RE, settings)
results = results_reader(settings)

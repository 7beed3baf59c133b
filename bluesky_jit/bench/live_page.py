"""What docs/benchmarks/live.md says above its figures."""

TITLE = "Live runs: figures"
TEXT = """\
What a live run is charged, and how soon its slices are there; `make bench-live` measures it again.

**Frame to slice** is read by a client of its own, which follows the image's PV over pvAccess: from a frame's time stamp
(when the camera had it) until the first image arrived that has this frame in it. So it holds the announcement of new
frames (the plan's, every 0.1 s), reading, filtering, the wait for the next update (10 a second at most),
reconstruction, denoising and the network; an update that is left out shows as a later one. p50, p95, p99: what 50, 95
and 99 of 100 frames stayed below. Denoised slices count from when the network is ready, raw ones from the first window.

**At the demo's size** frames come from the simulated beamline: IOC, RunEngine, `tomo_scan`, `bluesky-jit serve`.
**At the paper's detector's** a process of its own writes the frames to an HDF5 file at pace and sends the documents
that the camera and plan would send; slices are 384² of 0.25 mm. Both play frames rendered beforehand (a turn of a
sample at rest, again and again, each time with noise of its own), so that rendering is not measured. What the
camera's process takes is listed: at a beamline that is another machine.

**The largest rate sustained** is found by raising the rate by a fifth every 10 s, or lowering it from the paper's; the
session goes on, and a backlog is worked off in between. A rate is sustained when no frame is lost, 95 of 100 frames are
shown within a second, and the median of the last third of frames is shown at most 0.1 s later than that of the first
third: a backlog does not grow.

**Read it with the load in mind.** [live.json](live.json) holds, for each rate, how many cores the session, the camera
and everything else on the machine took, and the load average. Where others take a core, wall times are theirs as much
as ours. CPU time is not: what a frame takes while training is paused says which rate the cores have the time for, with
nothing left for training, and if no thread were to wait for another.

![how late frames are shown, and cores taken, at each rate](live-rates.png)

Documents: the time that a callback adds to each document of the RunEngine, over all documents of a scan.

![share of documents that took longer than a time](live.png)"""

"""The stages of the series, a file for each job that is too long for a notebook.

Imports run downward only: `vfi_utils` is the ground floor, and imports nothing of ours. On it stand, from below,

    layers, shots, ffmpeg, motion, markers      nothing of ours, or the ground floor alone
    seqinfo, download, archives                 a sequence's own file; bytes and members from servers
    mot17, sample_street, own_videos            01: kinds of footage
    footage, stored, frames, evidence, models   01 to 03
    runs, training, evaluation, path_crops      04, 05, 07
    streams, planning, video                    08

`tests/test_layout.py` holds them to it.
"""

"""What tools/bench runs: vx and its peers side by side on this machine.

    __main__     the command line: which parts, tables, records
    harness      servers as child processes, interleaved rounds, medians, the table
    build        stubs, the C++ peer and the slow disk, made from sources and kept in .cache/
    scenario     what all servers serve, and the requests for it
    transport    the parts `download`, `unary`, `mixed`, `memory`
    media        the part `media`: clips, against ffmpeg; media_worker is what its workers run
    live         the part `live`: cameras; cameras is what stands for them, there and in tools/soak
    h2load, probe, grpcio_client    the clients
    peers/       the servers: vx itself, and who it is compared with

A part is a function from a `Bench` to rows. A row says what was measured and what had to be reached; ratios are of
runs that followed each other (A B A B …), so that a machine that gets slower for a while hits both.
"""

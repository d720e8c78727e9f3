"""The command line: `vx serve`, and a client of a running server that uses nothing of the server's own code.

commands    the commands about sessions, their options and help texts; hands over to the rest
discovery   the commands about cameras
administration   the commands of who runs a server; firstconfig, pki: what `vx init` makes
calling     what all client commands have: the server, who one is there, how a command ends
values      what users write and what they are shown: times, sizes, access points, names of files (pure)
client      the connection: calls, and errors of gRPC and sockets told as `ClientError` with an exit status
export      start, follow, download, destroy; what an interrupt does
download    one result file to disk, with resume
report      lines, progress bars, tables, JSON
"""

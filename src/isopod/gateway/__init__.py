"""The data plane: one HTTP request in, one guest's answer out.

`app` is the ASGI entry; `router` finds the app by host name; `pool` decides which instance answers
and `slots` makes and ends instances; `invoke` passes the request through a guest; `body` reads what
the client sends; `logs` writes what the app prints; `pages` answers when no guest does; `admin` is
the socket on which control asks a worker. `admission` decides what is taken in at all, within
`quota`, and `room` which instances end so that others fit; `connections` ends those that say
nothing.
"""

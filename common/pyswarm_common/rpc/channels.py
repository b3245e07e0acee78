"""Channels and servers of gRPC: how long things may take, how large they may be, and how a peer proves itself."""

from __future__ import annotations

import grpc

from pyswarm_common.identity import NodeIdentity

MAX_MESSAGE_BYTES = 16 << 20

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    # What bounds the wait for a ping's answer in current gRPC: its default of a minute hides a peer that stands still.
    ("grpc.http2.ping_timeout_ms", 3_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    # In spite of its name, how long one attempt to connect may take at least, the TLS handshake included: on a busy
    # machine a handshake takes longer than any good pause between attempts.
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Each node talks to its peers by their own addresses: a proxy from the environment is never meant.
    ("grpc.enable_http_proxy", 0),
)
SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.http2.ping_timeout_ms", 3_000),
    # A second server on a taken port must fail, not share it.
    ("grpc.so_reuseport", 0),
)
TLS_SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    *SERVER_OPTIONS,
    # Of one connection: a client waits by itself until one of its streams ends (a manager's forwarder has one).
    ("grpc.max_concurrent_streams", 2_048),
    ("grpc.server_handshake_timeout_ms", 10_000),
    # A node has two or three; who comes when all are taken is hung up on, and tries again.
    ("grpc.max_allowed_incoming_connections", 20_000),
    ("grpc.max_metadata_size", 16 * 1024),
)
"""For servers that others reach over the network: `SERVER_OPTIONS`, bounded."""


def open_channel(address: str, identity: NodeIdentity, server_name: str) -> grpc.aio.Channel:
    """A channel by mTLS to a server whose certificate must carry `server_name` (a role, not a host name)."""
    options = (*CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", server_name))
    return grpc.aio.secure_channel(address, identity.channel_credentials(), options=options)


def open_local_channel(socket_path: str) -> grpc.aio.Channel:
    """A channel to a daemon's unix socket."""
    return grpc.aio.insecure_channel(f"unix:{socket_path}", options=CHANNEL_OPTIONS)

"""Encrypted overlay networks: WireGuard under VXLAN. `encryption.Encryption` is the way in."""

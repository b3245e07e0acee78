"""The hands of the overlay: namespaces, netlink, nftables and conntrack. Blocking calls; no decisions."""

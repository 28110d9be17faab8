/** What Weft has made in the kernel of a node, as text that is the same again when nothing has changed. */
import type { TestLab } from './test-lab.ts';

/** Everything of Weft's on a node that somebody may change; sorted, without numbers that are never the same twice. */
const LOOK = [
  'ip -4 route show table all proto 87',
  'ip -6 route show table all proto 87',
  'ip rule; ip -6 rule',
  // What `ip link` has to say of other people's namespaces that just go is none of this node's state.
  'ip -d -o link show type vxlan 2>/dev/null | sed "s/^[0-9]*: //;s/addrgenmode.*//"',
  'ip -o link show type veth 2>/dev/null | grep -o "weft[0-9a-f]*@.*mtu [0-9]*.*state [A-Z]*" | sed "s/@if[0-9]*//"',
  'ip -4 neigh show nud permanent; ip -6 neigh show nud permanent',
  'bridge fdb show dev weft-vxlan | grep permanent',
  'sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding',
  'nft -s list tables; nft -s list table inet weft',
];

/** One text per command of {@link LOOK}. */
export async function nodeState(lab: TestLab, node: string): Promise<string[]> {
  const parts = await Promise.all(
    LOOK.map((command) => lab.onNode(node, 'sh', '-c', `{ ${command}; } 2>&1 | sort`)),
  );
  return parts.map(({ stdout }) => stdout);
}

/** What somebody changes by hand on a node is back within a moment, and an Event on the Node says what it was and who did it. */
import { after, before, describe, test } from 'node:test';
import { nodeState } from './testing/node-state.ts';
import { eventually } from './testing/pod-lab.ts';
import { ipsOf, TestLab } from './testing/test-lab.ts';

/** Route and neighbour changes bear the port of who asked; the name can be read while that process lives. */
const IP = / by (ip|a process) \(pid \d+\)/;
const NFT = / by nft \(pid \d+\)/;
/** Of links, forwarding entries and sysctls the kernel names nobody. */
const NOBODY = /; put right$/;

describe('drift', { concurrency: false }, () => {
  let lab: TestLab;
  /** Events that were there before. */
  const seen = new Set<string>();

  const podCIDR = async (node: string, family: 4 | 6): Promise<string> =>
    (await lab.podCIDRs(node)).find((cidr) => cidr.includes(':') === (family === 6))!;
  const podIP = async (node: string, family: 4 | 6): Promise<string> =>
    ipsOf((await lab.find(`on-${node}`))!).find((ip) => ip.includes(':') === (family === 6))!;
  const veth = async (node: string): Promise<string> =>
    /dev (\S+)/.exec(await lab.must(node, 'ip', 'route', 'show', await podIP(node, 4)))![1]!;

  before(async () => {
    // node-1 and node-3 share a subnet; node-2 is beyond the router, so there are routes of both kinds.
    lab = await TestLab.boot('dr', { nodes: 3, subnets: 2 });
    await Promise.all(lab.topology.nodes.map(({ name }) => lab.pod(`on-${name}`, { nodeName: name })));
    for (const { name } of lab.topology.nodes) await lab.nodeEvents(name, seen);
  });
  after(() => lab?.[Symbol.asyncDispose]());

  /** What, on which node (the cases take turns: too many Events about one object are held back), how, what and whom the Event names. */
  const cases: Array<[string, string, () => Promise<string> | string, RegExp, RegExp]> = [
    [
      'an IPv4 route to a node beyond',
      'node-1',
      async () => `ip route del ${await podCIDR('node-2', 4)}`,
      /route 10\.244\.\d+\.0\/24 .*weft-vxlan.* was gone/,
      IP,
    ],
    [
      'an IPv6 route to a node beyond',
      'node-1',
      async () => `ip -6 route del ${await podCIDR('node-2', 6)}`,
      /route fd00:.* dev weft-vxlan .*was gone/,
      IP,
    ],
    [
      'a direct route',
      'node-1',
      async () => `ip route del ${await podCIDR('node-3', 4)}`,
      /route 10\.244\..* dev eth0 .*was gone/,
      IP,
    ],
    [
      'a direct route, put elsewhere',
      'node-1',
      async () => `ip route replace blackhole ${await podCIDR('node-3', 4)} metric 1087 proto 87`,
      /route 10\.244\./,
      IP,
    ],
    [
      'a route that nobody wants, in our name',
      'node-1',
      () => 'ip route add blackhole 10.244.250.0/24 metric 1087 proto 87',
      /route blackhole 10\.244\.250\.0\/24 .*nobody wants/,
      IP,
    ],
    [
      'an IPv4 route to a pod',
      'node-3',
      async () => `ip route del ${await podIP('node-3', 4)}`,
      /pod default\/on-node-3: route 10\.244\.\S+ .*is missing/,
      IP,
    ],
    [
      'an IPv6 route to a pod',
      'node-3',
      async () => `ip -6 route del ${await podIP('node-3', 6)}`,
      /pod default\/on-node-3: route fd00:\S+ .*is missing/,
      IP,
    ],
    [
      'a neighbour entry of a pod',
      'node-3',
      async () => `ip neigh del ${await podIP('node-3', 4)} dev ${await veth('node-3')}`,
      /pod default\/on-node-3: neighbour/,
      IP,
    ],
    [
      'the link of a pod',
      'node-3',
      async () => `ip link del ${await veth('node-3')}`,
      /pod default\/on-node-3: link weft\S+ is missing/,
      NOBODY,
    ],
    [
      'the link of a pod, set down',
      'node-3',
      async () => `ip link set ${await veth('node-3')} down`,
      /pod default\/on-node-3: link weft\S+ is down/,
      NOBODY,
    ],
    [
      'a forwarding entry of the tunnel',
      'node-2',
      () => 'set -- $(bridge fdb show dev weft-vxlan | grep permanent); bridge fdb del $1 dev weft-vxlan',
      /fdb .* dev weft-vxlan .*was gone/,
      NOBODY,
    ],
    [
      'a neighbour on the tunnel',
      'node-2',
      () => 'set -- $(ip -4 neigh show dev weft-vxlan nud permanent); ip neigh del $1 dev weft-vxlan',
      /neighbour .* dev weft-vxlan .*was gone/,
      IP,
    ],
    [
      'a neighbour on the tunnel, changed',
      'node-2',
      () =>
        'set -- $(ip -4 neigh show dev weft-vxlan nud permanent); ip neigh replace $1 lladdr 02:00:00:00:00:99 dev weft-vxlan nud permanent',
      /neighbour .* had mac 02:00:00:00:00:99/,
      IP,
    ],
    ['the MTU of the tunnel', 'node-2', () => 'ip link set weft-vxlan mtu 1300', /had mtu 1300/, NOBODY],
    ['the tunnel, set down', 'node-2', () => 'ip link set weft-vxlan down', /had up false/, NOBODY],
    ['the tunnel', 'node-1', () => 'ip link del weft-vxlan', /link weft-vxlan .*was gone/, NOBODY],
    [
      'forwarding, IPv4',
      'node-3',
      () => 'sysctl -qw net.ipv4.ip_forward=0',
      /sysctl net\/ipv4\/ip_forward was 0 instead of 1/,
      NOBODY,
    ],
    [
      'forwarding, IPv6',
      'node-3',
      () => 'sysctl -qw net.ipv6.conf.all.forwarding=0',
      /sysctl net\/ipv6\/conf\/all\/forwarding was 0 instead of 1/,
      NOBODY,
    ],
    [
      'the rule against forged sources',
      'node-3',
      () =>
        `nft -a list table inet weft | awk '/^\\tchain/ {c=$2} /fib saddr/ && !done {print "delete rule inet weft " c " handle " $NF; done=1}' | nft -f -`,
      /inet weft/,
      NFT,
    ],
    ['the whole filter', 'node-3', () => 'nft delete table inet weft', /table inet weft/, NFT],
    ['the filter, emptied', 'node-3', () => 'nft flush table inet weft', /inet weft/, NFT],
    [
      'an element of a set',
      'node-3',
      () =>
        `nft list table inet weft | tr -d '\\n' | sed -nE 's/.*set ([a-z0-9_-]+) \\{[^}]*elements = \\{ ([^ ,}]+).*/delete element inet weft \\1 { \\2 }/p' | nft -f -`,
      /inet weft/,
      NFT,
    ],
  ];

  for (const [what, node, script, named, who] of cases) {
    test(what, async (t) => {
      const before = await nodeState(lab, node);
      const command = await script();
      await lab.must(node, 'sh', '-ec', command);
      const began = performance.now();
      await eventually<true>(`${what} to be back`, 15_000, async () => {
        const now = await nodeState(lab, node);
        const differs = now.flatMap((text, i) => (text === before[i] ? [] : [{ was: before[i], is: text }]));
        return differs.length === 0 ? true : { not: differs };
      });
      t.diagnostic(`back after ${Math.round(performance.now() - began)} ms at the latest`);
      const messages: string[] = [];
      await eventually<true>(`an Event that says ${named} and ${who}`, 15_000, async () => {
        messages.push(...(await lab.nodeEvents(node, seen)).map(({ message = '' }) => message));
        return messages.some((message) => named.test(message) && who.test(message))
          ? true
          : { not: messages };
      });
    });
  }

  test('in the end every pod is reached from every node', async () => {
    const names = lab.topology.nodes.map(({ name }) => name);
    for (const from of names) {
      for (const to of names) {
        for (const family of [4, 6] as const)
          await lab.must(from, 'ping', '-nqc1', '-W2', await podIP(to, family));
      }
    }
  });
});

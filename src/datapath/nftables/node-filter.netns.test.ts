/** The base tables against packets that no honest pod would send, and against those that an honest one does. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { silentLogger } from '../../base/log.ts';
import { openKernel } from '../../kernel/kernel.ts';
import { ScratchNamespaces, until } from '../../kernel/testing/scratch.ts';
import {
  advertisementFrame,
  arpFrame,
  readUdp,
  solicitationFrame,
  type UdpPacket,
  udpFrame,
  Wire,
} from '../../kernel/testing/wire.ts';
import type { Kernel } from '../../kernel/types.ts';
import { NodeFilterReconciler } from './reconcile.ts';
import {
  addPodNeighbours,
  FILTER,
  HOST_MAC,
  inside,
  makeSmallNet,
  NODE,
  nft,
  OTHER,
  OTHER_SECOND,
  POD_A,
  POD_B,
  PORT,
  REMOTE_POD,
  type SmallNet,
  WORLD,
} from './testing/small-net.ts';

const scratch = new ScratchNamespaces('nodefilter');
let kernel: Kernel;
let net: SmallNet;
let filter: NodeFilterReconciler;
let fromA: Wire;
let atB: Wire;
let atOther: Wire;
let marker = 0;

before(async () => {
  kernel = await openKernel();
  net = makeSmallNet(scratch);
  fromA = new Wire(net.a, 'eth0');
  atB = new Wire(net.b, 'eth0');
  atOther = new Wire(net.other, 'eth0');
  addPodNeighbours(net, { a: fromA.mac, b: atB.mac });
  filter = new NodeFilterReconciler(kernel, net.node, silentLogger);
  await filter.apply(FILTER);
  // Neighbours on the underlay are learned before any test counts frames.
  for (const ip of [OTHER[4], OTHER[6]]) inside(net.node, 'ping', '-c1', '-W2', ip);
});
after(async () => {
  for (const wire of [fromA, atB, atOther]) wire?.[Symbol.dispose]();
  await kernel[Symbol.asyncDispose]();
  scratch.remove();
});

async function counts(): Promise<Record<string, number>> {
  const list = await filter.counters();
  return Object.fromEntries(list.map(({ counter, packets }) => [counter.replace(/^.* /, ''), packets]));
}

/** How much each counter grew while `fn` ran; those that did not are left out. */
async function counted(fn: () => Promise<void>): Promise<Record<string, number>> {
  const old = await counts();
  await fn();
  const grown = Object.entries(await counts()).map(([name, n]): [string, number] => [
    name,
    n - (old[name] ?? 0),
  ]);
  return Object.fromEntries(grown.filter(([, n]) => n !== 0));
}

const send = (p: UdpPacket): void => fromA.send(udpFrame(HOST_MAC, fromA.mac, p));

/** Packets seen at a place since the last look, up to an honest one of pod a that is sent now: all before it had their chance. */
async function arrivals(at: Wire, dst: string): Promise<UdpPacket[]> {
  const data = `marker ${++marker}`;
  send({ src: dst.includes(':') ? POD_A[6] : POD_A[4], dst, dport: 9, data });
  const seen: UdpPacket[] = [];
  await until(`${data} arrives at ${dst}`, () => {
    seen.push(...at.seen().flatMap((frame) => readUdp(frame) ?? []));
    return seen.some((p) => p.data === data);
  });
  return seen.filter((p) => !p.data.startsWith('marker'));
}

describe('a pod sends from its own addresses only', () => {
  const sources: Record<string, { 4: string; 6: string }> = {
    'the other pod of the node': POD_B,
    'a pod of another node': REMOTE_POD,
    'an address of its own node': NODE,
    'another node': OTHER,
    'a free address of its own node’s range': { 4: '10.77.0.99', 6: 'fd77::99' },
    'an address of the world': WORLD,
    'the gateway of pods': { 4: '169.254.1.1', 6: 'fe80::1' },
    'a link-local address of its own making': { 4: '169.254.7.7', 6: 'fe80::7' },
    loopback: { 4: '127.0.0.1', 6: '::1' },
    multicast: { 4: '224.0.0.5', 6: 'ff02::5' },
    broadcast: { 4: '255.255.255.255', 6: 'ff02::1' },
    'no address': { 4: '0.0.0.0', 6: '::' },
  };
  /** The kernel itself drops these before any hook (net/ipv6/ip6_input.c, RFC 4291 §2.7 and §2.5.3). */
  const dropsItself = new Set(['::1', 'ff02::5', 'ff02::1']);

  for (const family of [4, 6] as const) {
    for (const [what, source] of Object.entries(sources)) {
      test(`IPv${family}: ${what} (${source[family]})`, async () => {
        const forge = { src: source[family], dport: 53, data: 'forged' };
        const grown = await counted(async () => {
          for (const dst of [POD_B, NODE, WORLD]) send({ ...forge, dst: dst[family] });
          assert.deepEqual(await arrivals(atB, POD_B[family]), []);
          assert.deepEqual(await arrivals(atOther, OTHER[family]), []);
        });
        const counter = source[family].startsWith('fe80') ? 'pod_link_local' : 'forged_source';
        assert.deepEqual(grown, dropsItself.has(source[family]) ? {} : { [counter]: 3 });
      });
    }

    test(`IPv${family}: its own address reaches pods, nodes and its own node, unchanged`, async () => {
      const grown = await counted(async () => {
        send({ src: POD_A[family], dst: POD_B[family], dport: 53, data: 'to b' });
        assert.deepEqual(
          (await arrivals(atB, POD_B[family])).map(({ src, data }) => [src, data]),
          [[POD_A[family], 'to b']],
        );
        send({ src: POD_A[family], dst: OTHER[family], dport: 53, data: 'to a node' });
        const [seen] = (await arrivals(atOther, OTHER[family])).filter(({ data }) => data === 'to a node');
        assert.equal(seen?.src, POD_A[family]);
        for (const ip of [POD_B, NODE, OTHER]) inside(net.a, 'ping', '-c1', '-W2', ip[family]);
        inside(net.node, 'ping', '-c1', '-W2', POD_A[family]);
        inside(net.other, 'ping', '-c1', '-W2', POD_A[family]);
      });
      assert.deepEqual(grown, {});
    });
  }

  test('IPv4: nothing from the zero address to everybody, as a DHCP client sends it, gets through or does harm', async () => {
    const grown = await counted(async () => {
      fromA.send(
        udpFrame('ff:ff:ff:ff:ff:ff', fromA.mac, {
          src: '0.0.0.0',
          dst: '255.255.255.255',
          sport: 68,
          dport: 67,
          data: 'discover',
        }),
      );
      assert.deepEqual(await arrivals(atB, POD_B[4]), []);
    });
    assert.deepEqual(grown, {});
  });

  test('without the tables every one of these would arrive: the tests above can see it', async () => {
    await filter.remove();
    for (const [family, src] of [
      [4, REMOTE_POD[4]],
      [4, OTHER[4]],
      [6, REMOTE_POD[6]],
      [6, OTHER[6]],
    ] as const) {
      send({ src, dst: POD_B[family], dport: 53, data: 'forged' });
      assert.deepEqual(
        (await arrivals(atB, POD_B[family])).map((p) => p.src),
        [src],
      );
    }
    await filter.apply(FILTER);
  });

  test('a forged packet leaves no conntrack entry', async () => {
    send({ src: '10.77.0.98', dst: POD_B[4], dport: 53, data: 'forged' });
    await arrivals(atB, POD_B[4]);
    assert.deepEqual(await kernel.conntrack(net.node, { address: '10.77.0.98' }), []);
    assert.notDeepEqual(await kernel.conntrack(net.node, { address: POD_A[4] }), []);
  });
});

describe('a pod says nothing about neighbours that its node believes', () => {
  const evil = '02:00:00:00:06:66';
  const neighbours = async (): Promise<string[]> =>
    (await kernel.dump(net.node, ['neighbour']))
      .flatMap((n) => (n.kind === 'neighbour' ? [`${n.dev} ${n.dst} ${n.mac}`] : []))
      .sort();
  const arps = (): Uint8Array[] => [
    // Gratuitous: "the other node, the other pod, I myself, somebody: is at …".
    ...[OTHER[4], POD_B[4], POD_A[4], '10.9.0.77'].flatMap((ip) => [
      arpFrame('ff:ff:ff:ff:ff:ff', fromA.mac, {
        op: 'request',
        senderIp: ip,
        senderMac: evil,
        targetIp: ip,
      }),
      arpFrame(HOST_MAC, fromA.mac, { op: 'reply', senderIp: ip, senderMac: evil, targetIp: NODE[4] }),
    ]),
    // Questions make the kernel remember who asks.
    ...['10.1.2.3', '10.1.2.4', OTHER[4]].map((ip) =>
      arpFrame(HOST_MAC, fromA.mac, { op: 'request', senderIp: ip, senderMac: evil, targetIp: NODE[4] }),
    ),
  ];

  test('ARP', async () => {
    const old = await neighbours();
    const grown = await counted(async () => {
      for (const frame of arps()) fromA.send(frame);
      await arrivals(atB, POD_B[4]);
    });
    assert.deepEqual(grown, { pod_arp: arps().length });
    assert.deepEqual(await neighbours(), old);
    // The same without the table: the test would see it.
    nft(net.node, 'delete table arp weft');
    for (const frame of arps()) fromA.send(frame);
    await arrivals(atB, POD_B[4]);
    assert.ok((await neighbours()).includes(`wefta 10.1.2.3 ${evil}`));
    inside(net.node, 'ip', 'neighbour', 'flush', 'dev', 'wefta', 'nud', 'stale', 'nud', 'reachable');
    assert.deepEqual((await filter.apply(FILTER)).changed, ['table arp weft was missing']);
  });

  test('neighbour advertisements and solicitations', async () => {
    const old = await neighbours();
    for (const src of [POD_A[6], 'fe80::7', POD_B[6], OTHER[6]]) {
      for (const target of [OTHER[6], POD_B[6], POD_A[6], 'fe80::7', 'fd09::77']) {
        fromA.send(advertisementFrame(HOST_MAC, fromA.mac, { src, dst: NODE[6], target, mac: evil }));
        fromA.send(
          advertisementFrame('33:33:00:00:00:01', fromA.mac, { src, dst: 'ff02::1', target, mac: evil }),
        );
      }
      fromA.send(solicitationFrame(HOST_MAC, fromA.mac, { src, dst: NODE[6], target: NODE[6], mac: evil }));
    }
    await arrivals(atB, POD_B[6]);
    assert.deepEqual(await neighbours(), old);
  });
});

for (const family of [4, 6] as const) {
  describe(`encapsulated packets over IPv${family}`, () => {
    test('from a node: accepted', async () => {
      const grown = await counted(async () => {
        atOther.seen();
        outside(OTHER[family], NODE[family]);
        // Nobody listens here, and so says the node: the packet has passed the filter.
        await until('the node answers that nobody listens', () =>
          atOther.seen().some((frame) => isUnreachable(frame)),
        );
      });
      assert.deepEqual(grown, {});
    });

    test('from anybody else: dropped and counted', async () => {
      const grown = await counted(async () => {
        outside(OTHER_SECOND[family], NODE[family]);
        outside(WORLD[family], NODE[family]);
      });
      assert.deepEqual(grown, { encap_from_stranger: 2 });
    });

    test('from a pod, to whomever: dropped and counted', async () => {
      const grown = await counted(async () => {
        for (const dst of [NODE, POD_B, OTHER, OTHER_SECOND, WORLD, REMOTE_POD]) {
          send({ src: POD_A[family], dst: dst[family], dport: PORT, data: 'encapsulated' });
        }
        const seen = [...(await arrivals(atB, POD_B[family])), ...(await arrivals(atOther, OTHER[family]))];
        assert.deepEqual(
          seen.filter(({ data }) => data === 'encapsulated'),
          [],
        );
      });
      assert.deepEqual(grown, { encap_from_pod: 6 });
    });

    test('from a pod, led to the port by a foreign DNAT: dropped and counted', async () => {
      const l3 = family === 4 ? 'ip' : 'ip6';
      const to = family === 4 ? `${OTHER[4]}:${PORT}` : `[${OTHER[6]}]:${PORT}`;
      nft(
        net.node,
        `add table ${l3} foreign`,
        `add chain ${l3} foreign pre { type nat hook prerouting priority dstnat ; }`,
        `add rule ${l3} foreign pre udp dport 7777 dnat to ${to}`,
      );
      const grown = await counted(async () => {
        send({ src: POD_A[family], dst: WORLD[family], dport: 7777, data: 'around' });
        const seen = await arrivals(atOther, OTHER[family]);
        assert.deepEqual(
          seen.filter(({ data }) => data === 'around'),
          [],
        );
      });
      assert.deepEqual(grown, { encap_from_pod: 1 });
      nft(net.node, `delete table ${l3} foreign`);
    });
  });

  test(`IPv${family}: pods are masqueraded where the cluster ends, and not within`, async () => {
    const grown = await counted(async () => {
      const cases: Array<[string, string]> = [
        [WORLD[family], NODE[family]],
        [OTHER_SECOND[family], NODE[family]],
        [OTHER[family], POD_A[family]],
        [REMOTE_POD[family], POD_A[family]],
      ];
      for (const [dst, src] of cases) {
        send({ src: POD_A[family], dst, sport: 41000, dport: 53, data: `to ${dst}` });
        const [seen] = (await arrivals(atOther, OTHER[family])).filter(({ data }) => data === `to ${dst}`);
        assert.equal(seen?.src, src, dst);
      }
    });
    assert.deepEqual(grown, { masqueraded: 2 });
  });
}

/** An encapsulated packet on the underlay, from outside. */
function outside(src: string, dst: string): void {
  const mac = inside(net.node, 'cat', '/sys/class/net/eth0/address').trim();
  atOther.send(udpFrame(mac, atOther.mac, { src, dst, dport: PORT, data: 'encapsulated' }));
}

/** ICMP type 3 (RFC 792), ICMPv6 type 1 (RFC 4443). */
function isUnreachable(frame: Uint8Array): boolean {
  const type = (frame[12]! << 8) | frame[13]!;
  if (type === 0x0800) return frame[23] === 1 && frame[34] === 3;
  return type === 0x86dd && frame[20] === 58 && frame[54] === 1;
}

/**
 * `weft bench path`: what pods get through Weft's network, beside the same network made by hand.
 *
 * The networks exist at the same time and are measured in turns, a second each, and who begins changes from round to round;
 * a ratio is the median of the rounds' own ratios. One hand-made network is there twice: what they differ by is the noise.
 */
import { type HandMade, makeByHand } from './hand-made.ts';
import { machineFacts, packageVersion } from './machine.ts';
import {
  type Endpoint,
  ensureProbe,
  MEASURES,
  type Measure,
  measurePath,
  startServers,
} from './path-probe.ts';
import { figure, judged, type Section, type Table } from './report.ts';
import { Scope } from './scope.ts';
import { median, pairedRatio, rotate } from './stats.ts';
import { down, labName, upWithPods, type WeftLab } from './weft-lab.ts';

export interface PathOptions {
  rounds: number;
  /** Of each measurement. */
  seconds: number;
  progress(text: string): void;
}

interface Network {
  name: string;
  pod(node: number, number: number): Endpoint;
  node(number: number): string;
}

const TARGET = { atLeast: 0.97 };
const HAND = 'by hand';
const MASQUERADE = 'by hand + masquerade';
const AGAIN = 'by hand, again';
const PATHS = [
  { fabric: 'vxlan', title: 'on a node', to: [1, 2] },
  { fabric: 'vxlan', title: 'across nodes, vxlan', to: [2, 1] },
  { fabric: 'host-gw', title: 'across nodes, host-gw', to: [2, 1] },
] as const;

export async function benchPath(options: PathOptions): Promise<Section> {
  const { rounds, seconds, progress } = options;
  const facts = [...machineFacts(), ['iperf3', 'iproute2'].map(packageVersion).join(', ')];
  ensureProbe();
  const tables: Table[] = [];
  for (const fabric of ['vxlan', 'host-gw'] as const) {
    await using scope = new Scope();
    progress(`${fabric}: making the networks`);
    const lab = await labName(scope);
    const weft = await upWithPods(scope, lab, fabric);
    const podMtu = (await offloads(scope, weft.pod(1, 1).netns, 'eth0')).mtu;
    const hand = (label: string, masquerade: boolean): Promise<HandMade> =>
      makeByHand(scope, { label, fabric, podMtu, masquerade });
    const networks: Network[] = [
      { name: 'weft', ...weft },
      { name: HAND, ...(await hand('a', false)) },
      { name: MASQUERADE, ...(await hand('b', true)) },
      { name: AGAIN, ...(await hand('c', false)) },
    ];
    await compareDevices(scope, weft, networks[1]!);
    for (const network of networks) {
      await startServers(scope, network.pod(1, 2));
      await startServers(scope, network.pod(2, 1));
    }
    for (const path of PATHS.filter((candidate) => candidate.fabric === fabric)) {
      const results = new Map<string, number[]>();
      for (let round = 1; round <= rounds; round++) {
        progress(`${path.title}: round ${round} of ${rounds}`);
        for (const { measure } of MEASURES) {
          for (const { name, pod } of rotate(networks, round)) {
            const value = await measurePath(scope, measure, pod(1, 1), pod(path.to[0], path.to[1]), seconds);
            const key = resultKey(name, measure);
            results.set(key, [...(results.get(key) ?? []), value]);
          }
        }
      }
      tables.push(pathTable(`${path.title} (MTU ${podMtu})`, results));
    }
    await down(lab);
  }
  return {
    name: 'path',
    title: 'Path: pod to pod, beside the same network made by hand',
    command: `./weft bench path --rounds ${rounds} --seconds ${seconds}`,
    facts,
    tables,
    notes: [
      `Medians of ${rounds} interleaved rounds of ${seconds} s (throughput) and ${seconds / 2} s each, IPv4; ratios are medians of the rounds' own ratios.`,
      'Throughput: iperf3, one connection, client and server pinned to a CPU each. Request/response and new connections: ' +
        'one byte there and back (`bench/net-probe.c`), one at a time, both ends pinned to the same CPU.',
      '"by hand": `ip` and nothing else (`bench/hand-made.ts`): the same devices, MTU and offloads, checked before measuring. ' +
        'Such pods cannot reach the outside and can forge any source address.',
      '"by hand + masquerade": with the one nft rule that lets pods out, which brings connection tracking.',
      '"by hand, again" is a second network like "by hand": how far its ratio is from 1 is the noise of the measurement.',
    ],
  };
}

const resultKey = (name: string, measure: Measure): string => `${name}/${measure}`;

function pathTable(caption: string, results: Map<string, number[]>): Table {
  const of = (name: string, measure: Measure): number[] => results.get(resultKey(name, measure))!;
  return {
    caption,
    columns: ['', 'weft', HAND, MASQUERADE, 'weft / by hand', 'weft / masquerade', 'again / by hand'],
    rows: MEASURES.map(({ measure, title, unit }) => {
      const ratio = (name: string, to: string): number => pairedRatio(of(name, measure), of(to, measure));
      return [
        `${title}, ${unit}`,
        ...['weft', HAND, MASQUERADE].map((name) => figure(median(of(name, measure)))),
        judged(ratio('weft', HAND), TARGET),
        figure(ratio('weft', MASQUERADE)),
        figure(ratio(AGAIN, HAND)),
      ];
    }),
  };
}

interface Offloads {
  /** Bytes. */
  mtu: number;
  /** What `ip -details` says of segmentation and queues. */
  limits: Record<string, unknown>;
  /** Lines of `ethtool --show-features`. */
  features: string;
}

async function offloads(scope: Scope, netns: string, device: string): Promise<Offloads> {
  const inside = ['nsenter', `--net=${netns}`, '--'];
  const [link, features] = await Promise.all([
    scope.run([...inside, 'ip', '-json', '-details', 'link', 'show', device]),
    scope.run([...inside, 'ethtool', '--show-features', device]),
  ]);
  const [shown] = JSON.parse(link.stdout) as Array<Record<string, unknown>>;
  const names = [
    'num_tx_queues',
    'num_rx_queues',
    'gso_max_size',
    'gso_max_segs',
    'tso_max_size',
    'gro_max_size',
  ];
  return {
    mtu: Number(shown!.mtu),
    limits: Object.fromEntries([...names, 'qdisc', 'txqlen'].map((name) => [name, shown![name]])),
    features: features.stdout.split('\n').slice(1).join('\n'), // the first line names the device
  };
}

/** A comparison of networks is worth nothing when their devices differ. @throws Error naming the device */
async function compareDevices(scope: Scope, weft: WeftLab, hand: Network): Promise<void> {
  const pairs = [
    ['eth0 of a pod', weft.pod(1, 1).netns, hand.pod(1, 1).netns],
    ['eth0 of a node', weft.node(1), hand.node(1)],
  ] as const;
  for (const [what, ours, theirs] of pairs) {
    const [a, b] = await Promise.all([ours, theirs].map((netns) => offloads(scope, netns, 'eth0')));
    if (JSON.stringify(a) !== JSON.stringify(b)) {
      throw new Error(`${what} is not the same device: ${JSON.stringify(a)} and ${JSON.stringify(b)}`);
    }
  }
}

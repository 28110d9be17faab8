/**
 * `weft bench cni`: the wall time of executing the installed plugin, from a node's first pod to its last.
 *
 * Every contender has a node of its own. They take turns in blocks of a few pods, and who begins changes from block to
 * block, so that whatever else the machine does meets all of them alike. The pods' namespaces are made beforehand.
 */
import {
  answerOf,
  type CniContender,
  type CniResult,
  cniCall,
  podLinks,
  verifyPod,
} from './cni-contender.ts';
import { referenceContenders } from './cni-reference.ts';
import { weftContender } from './cni-weft.ts';
import { machineFacts, packageVersion } from './machine.ts';
import { figure, judged, type Section, type Table } from './report.ts';
import { Scope } from './scope.ts';
import { median, quantile, rotate } from './stats.ts';

export interface CniOptions {
  pods: number;
  /** How often every node is filled and emptied. */
  rounds: number;
  /** Leave out those whose name has none of these in it; `floor` is always there. */
  only?: string[];
  progress(text: string): void;
}

/** Pods that one contender handles before it is the next one's turn. */
const BLOCK = 10;
/** How many pods are the `few` and the `many` of a node. */
const EDGE = 100;
/** Milliseconds after the last ADD at which memory is looked at. */
const SETTLE = 30_000;
/** Milliseconds within which the devices of deleted pods must be gone. */
const DRAIN = 30_000;
const TARGETS = { faster: 10, growth: 2, residentMiB: 120 };

type Command = 'ADD' | 'DEL';

/** Milliseconds of every call of one contender, by the number of pods that the node had then. */
interface Samples {
  name: string;
  calls: Record<Command, Array<{ pods: number; millis: number }>>;
  /** Milliseconds after every block of DELs until the devices of all its pods were gone. */
  drained: number[];
}

export async function benchCni(options: CniOptions): Promise<Section> {
  await using scope = new Scope();
  const { pods, rounds, progress } = options;
  const facts = [...machineFacts(), packageVersion('containernetworking-plugins')];
  const wanted = (name: string): boolean => options.only?.some((part) => name.includes(part)) ?? true;
  progress('starting the contenders');
  const contenders: CniContender[] = [];
  if (wanted('weft')) contenders.push(await weftContender(scope));
  contenders.push(...(await referenceContenders(scope, pods)).filter(({ name }) => wanted(name)));
  const samples = new Map(
    contenders.map(({ name }): [string, Samples] => [
      name,
      { name, calls: { ADD: [], DEL: [] }, drained: [] },
    ]),
  );
  const floor: number[] = [];
  let resident: { agent: number; apiserver: number } | undefined;
  // One after the other: namespaces and devices of all nodes are one kernel's, and a thousand pods of somebody else would
  // be measured along.
  for (let round = 1; round <= rounds; round++) {
    for (const contender of rotate(contenders, round - 1)) {
      if (round === 1) {
        progress(`${contender.name}: making ${pods} namespaces`);
        await contender.box.makePods(pods);
      }
      const results = await everyPod('ADD', round, contender);
      if (contender.resident && round === rounds) {
        progress(`waiting ${SETTLE / 1000} s, then looking at memory`);
        await scope.sleep(SETTLE);
        resident = contender.resident();
      }
      await everyPod('DEL', round, contender, results);
      if (round === rounds) await contender.box.close();
    }
  }

  /** Milliseconds until the node has no more pod devices than this. */
  async function drained(contender: CniContender, left: number): Promise<number> {
    const began = Date.now();
    await scope.until(`${contender.name}: removal of devices after DEL`, DRAIN, async () =>
      (await podLinks(contender)) <= left ? true : undefined,
    );
    return Date.now() - began;
  }

  /** One command for every pod of a contender, checked and recorded. */
  async function everyPod(
    command: Command,
    round: number,
    contender: CniContender,
    added?: Array<CniResult | undefined>,
  ): Promise<Array<CniResult | undefined>> {
    const { name, box } = contender;
    const answers: Array<CniResult | undefined> = [];
    for (let first = 1; first <= pods; first += BLOCK) {
      const last = Math.min(pods, first + BLOCK - 1);
      const calls = Array.from({ length: last - first + 1 }, (_, i) =>
        cniCall(contender, command, first + i, added?.[first + i - 1]),
      );
      const [nothing, ...executed] = await box.execute([{ program: '/bin/true' }, ...calls]);
      floor.push(nothing!.micros / 1000);
      for (const [i, call] of calls.entries()) {
        answers.push(answerOf(contender, call, executed[i]!));
        const present = command === 'ADD' ? first + i : pods - (first + i) + 1;
        samples.get(name)!.calls[command].push({ pods: present, millis: executed[i]!.micros / 1000 });
      }
      // What a contender puts off until later is part of its work too.
      if (command === 'DEL') samples.get(name)!.drained.push(await drained(contender, pods - last));
      if (last % 100 === 0 || last === pods)
        progress(`round ${round} of ${rounds}: ${name}: ${command} ${last} of ${pods}`);
    }
    for (const pod of new Set([1, pods])) {
      await verifyPod(contender, pod, command === 'ADD' ? answers[pod - 1] : undefined);
    }
    return answers;
  }

  const all = [...samples.values()];
  return {
    name: 'cni',
    title: `CNI plugin: ${pods} pods on a node`,
    command: `./weft bench cni --pods ${pods} --rounds ${rounds}`,
    facts,
    tables: [
      timeTable(all, floor, pods),
      ratioTable(all),
      ...(resident ? [memoryTable(resident, pods)] : []),
    ],
    notes: [
      'Milliseconds from just before posix_spawn(3) of the plugin to just after waitpid(2). `/bin/true` is the floor: what ' +
        'the same measurement says of a program that does nothing. It is not subtracted from anything.',
      `"few" and "many": median of the ${edge(pods)} calls with the fewest and the most pods on the node, and the growth from one to the other.`,
      'Contenders take turns in each round, each on a node (network, mount and UTS namespace) of its own.',
      'Weft gives a pod IPv4 and IPv6, masquerading and protection against forged sources, and has it all on disk before it ' +
        'answers. The reference plugins are configured as their documentation shows, for IPv4 alone: `bridge` with ' +
        'masquerading (ipMasq), and once more without it; `ptp` without.',
      'DEL of the reference plugins waits for the kernel to remove the device. Weft answers when the release is durable and the ' +
        'pod is cut off, and removes devices in batches behind it; ' +
        `those of ${BLOCK} pods were gone ${drainText(all)} (median) after the last answer, and only then was it the next one's turn.`,
      ...(pods > 1023 ? ['`bridge` is left out: a Linux bridge has at most 1024 ports.'] : []),
    ],
  };
}

function drainText(all: Samples[]): string {
  const weft = all.find(({ name }) => name === 'weft');
  return weft ? figure(median(weft.drained), 'ms') : '(not measured)';
}

const edge = (pods: number): number => Math.min(EDGE, Math.max(1, Math.floor(pods / 5)));

function growth(calls: Array<{ pods: number; millis: number }>, pods: number): { few: number; many: number } {
  const pick = (keep: (call: { pods: number }) => boolean): number =>
    median(calls.filter(keep).map(({ millis }) => millis));
  return {
    few: pick((call) => call.pods <= edge(pods)),
    many: pick((call) => call.pods > pods - edge(pods)),
  };
}

function timeTable(all: Samples[], floor: number[], pods: number): Table {
  const rows = (['ADD', 'DEL'] as const).flatMap((command) =>
    all.map(({ name, calls }) => {
      const millis = calls[command].map((call) => call.millis);
      const { few, many } = growth(calls[command], pods);
      const grown =
        name === 'weft' ? judged(many / few, { atMost: TARGETS.growth }, '×') : figure(many / few, '×');
      return [
        `${command} ${name}`,
        ...[median(millis), quantile(millis, 0.9), quantile(millis, 0.99), few, many].map((value) =>
          figure(value),
        ),
        grown,
      ];
    }),
  );
  rows.push([
    '/bin/true',
    figure(median(floor)),
    figure(quantile(floor, 0.9)),
    figure(quantile(floor, 0.99)),
  ]);
  return { columns: ['ms', 'median', 'p90', 'p99', 'few', 'many', 'growth'], rows };
}

function ratioTable(all: Samples[]): Table {
  const of = (samples: Samples, command: Command): number =>
    median(samples.calls[command].map(({ millis }) => millis));
  const weft = all.find(({ name }) => name === 'weft');
  const rows = weft
    ? all
        .filter((other) => other !== weft)
        .map((other) => {
          const target = other.name === 'bridge + host-local' ? { atLeast: TARGETS.faster } : {};
          const ratio = (command: Command): string =>
            judged(of(other, command) / of(weft, command), target, '×');
          return [other.name, ratio('ADD'), ratio('DEL')];
        })
    : [];
  return { caption: 'How many times faster Weft is', columns: ['than', 'ADD', 'DEL'], rows };
}

function memoryTable(resident: { agent: number; apiserver: number }, pods: number): Table {
  const mib = (bytes: number): number => bytes / 2 ** 20;
  return {
    caption: `Resident memory with ${pods} pods, ${SETTLE / 1000} s after the last ADD`,
    columns: ['process', 'MiB'],
    rows: [
      ['weft agent', judged(mib(resident.agent), { atMost: TARGETS.residentMiB })],
      ['weft apiserver (not part of a node)', figure(mib(resident.apiserver))],
    ],
  };
}

/** `weft bench up`: from the command to a cluster of three nodes whose pods were seen to reach each other, and back. */
import { machineFacts } from './machine.ts';
import { figure, judged, type Section } from './report.ts';
import { Scope } from './scope.ts';
import { median } from './stats.ts';
import { LAUNCHER, labName } from './weft-lab.ts';

export interface UpOptions {
  rounds: number;
  progress(text: string): void;
}

const NODES = 3;
const TARGET = { atMost: 5 };
const TIMEOUT = 120_000;

export async function benchUp({ rounds, progress }: UpOptions): Promise<Section> {
  await using scope = new Scope();
  const facts = machineFacts();
  await scope.run([LAUNCHER, 'version'], { timeout: 15 * 60_000 }); // whatever set-up is due happens here
  const lab = await labName(scope);
  const up: number[] = [];
  const down: number[] = [];
  for (let round = 1; round <= rounds; round++) {
    const began = await scope.run([LAUNCHER, 'up', '--lab', lab, '--nodes', String(NODES)], {
      timeout: TIMEOUT,
    });
    up.push(began.millis / 1000);
    const ended = await scope.run([LAUNCHER, 'down', '--lab', lab], { timeout: TIMEOUT });
    down.push(ended.millis / 1000);
    progress(`round ${round} of ${rounds}: up ${figure(up.at(-1)!, 's')}, down ${figure(down.at(-1)!, 's')}`);
  }
  const row = (name: string, seconds: number[], middle: string): string[] => [
    name,
    middle,
    figure(Math.min(...seconds)),
    figure(Math.max(...seconds)),
  ];
  return {
    name: 'up',
    title: `weft up: ${NODES} nodes, reachability verified`,
    command: `./weft bench up --rounds ${rounds}`,
    facts,
    tables: [
      {
        columns: ['seconds', 'median', 'least', 'most'],
        rows: [
          row('./weft up', up, judged(median(up), TARGET)),
          row('./weft down', down, figure(median(down))),
        ],
      },
    ],
    notes: [
      `Wall time of the whole command, launcher included, ${rounds} times; set-up was done before. \`up\` ends after real ` +
        'packets between all pods and nodes have arrived, and fails when one does not.',
    ],
  };
}

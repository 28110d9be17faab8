/**
 * `weft bench`: a process of its own, so that nothing of the command line is resident or running beside what is measured.
 * The benchmarks are outside of src/: they see Weft as its users do.
 */
import { spawn, spawnSync } from 'node:child_process';
import path from 'node:path';
import { AGENT_NODE_FLAGS } from '../../agent/node-flags.ts';
import { WeftError } from '../../base/errors.ts';

const MAIN = path.join(import.meta.dirname, '../../../bench/main.ts');
const NODE = ['--disable-warning=ExperimentalWarning'];

export interface BenchOptions {
  /** Pods of the cni benchmark. */
  pods: number;
  /** Undefined: each benchmark's own default. */
  rounds?: number;
  /** Of each measurement of the path benchmark. */
  seconds?: number;
  /** Replace the benchmarks' sections in this page. */
  markdown?: string;
}

export async function bench(names: string[], options: BenchOptions): Promise<void> {
  const { pods, rounds, seconds, markdown } = options;
  const args = Object.entries({ pods, rounds, seconds, markdown }).flatMap(([name, value]) =>
    value === undefined ? [] : [`--${name}`, String(value)],
  );
  warmUp();
  const child = spawn(process.execPath, [...NODE, MAIN, ...args, '--', ...names], { stdio: 'inherit' });
  // It has things to take away first; a terminal's Ctrl-C reaches it directly.
  const forward = (signal: NodeJS.Signals): void => void child.kill(signal);
  const ignore = (): void => {};
  process.on('SIGINT', ignore).on('SIGTERM', forward).on('SIGHUP', forward);
  try {
    process.exitCode = await new Promise<number>((resolve, reject) => {
      child.once('error', reject);
      child.once('close', (code) => resolve(code ?? 1));
    });
  } finally {
    process.off('SIGINT', ignore).off('SIGTERM', forward).off('SIGHUP', forward);
  }
}

/** As set-up does: sources that were edited since are compiled now, and not by the processes that are measured. */
function warmUp(): void {
  for (const flags of [[], AGENT_NODE_FLAGS]) {
    const main = path.join(import.meta.dirname, '../main.ts');
    const { status, stderr } = spawnSync(process.execPath, [...NODE, ...flags, main, 'warm'], {
      encoding: 'utf8',
    });
    if (status !== 0) throw new WeftError('WEFT_SETUP_FAILED', `weft warm failed: ${stderr.trim()}`);
  }
}

/** What `weft bench` runs: the benchmarks by name, each printed as soon as it is done. */
import { parseArgs } from 'node:util';
import { messageOf, WeftError } from '../src/base/errors.ts';
import { type Section, toText, writeSection } from './report.ts';

interface Options {
  pods: number;
  /** Undefined: each benchmark's own default. */
  rounds: number | undefined;
  seconds: number;
  progress(text: string): void;
}

/** In the order in which they run; each is loaded when it does. */
const BENCHMARKS: Record<string, (options: Options) => Promise<Section>> = {
  cni: async ({ pods, rounds = 1, progress }) =>
    (await import('./cni.ts')).benchCni({ pods, rounds, progress }),
  path: async ({ rounds = 11, seconds, progress }) =>
    (await import('./path.ts')).benchPath({ rounds, seconds, progress }),
  kernel: async ({ pods, progress }) => (await import('./kernel.ts')).benchKernel({ pods, progress }),
  up: async ({ rounds = 5, progress }) => (await import('./up.ts')).benchUp({ rounds, progress }),
};

/** One line that renews itself on a terminal, and none where nobody would see it renewed. */
function progressOf(name: string): (text: string) => void {
  const began = Date.now();
  return (text) => {
    const line = `weft bench ${name}: ${text} (${Math.round((Date.now() - began) / 1000)} s)`;
    process.stderr.write(process.stderr.isTTY ? `\r\x1b[K${line}` : `${line}\n`);
  };
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      pods: { type: 'string', default: '1000' },
      rounds: { type: 'string' },
      seconds: { type: 'string', default: '1' },
      markdown: { type: 'string' },
    },
  });
  const known = Object.keys(BENCHMARKS);
  const unknown = positionals.filter((name) => !known.includes(name));
  if (unknown.length > 0) {
    throw new WeftError(
      'WEFT_BAD_CONFIG',
      `no benchmark ${unknown.join(', ')}; there are ${known.join(', ')}`,
    );
  }
  if (process.getuid?.() !== 0) {
    throw new WeftError('WEFT_NOT_ROOT', 'the benchmarks make network namespaces and need root');
  }
  for (const name of positionals.length > 0 ? known.filter((one) => positionals.includes(one)) : known) {
    const section = await BENCHMARKS[name]!({
      pods: Number(values.pods),
      rounds: values.rounds === undefined ? undefined : Number(values.rounds),
      seconds: Number(values.seconds),
      progress: progressOf(name),
    });
    if (process.stderr.isTTY) process.stderr.write('\r\x1b[K');
    process.stdout.write(`${toText(section)}\n`);
    if (values.markdown !== undefined) writeSection(values.markdown, section);
  }
}

try {
  await main();
} catch (error) {
  const known = error instanceof WeftError;
  const text = known ? `${error.code}: ${error.message}\n      ${error.hint}` : messageOf(error);
  const cause =
    error instanceof Error && error.cause !== undefined ? `\n      ${messageOf(error.cause)}` : '';
  process.stderr.write(`weft: bench: ${text}${cause}\n`);
  if (process.env.WEFT_DEBUG && error instanceof Error) process.stderr.write(`${error.stack}\n`);
  process.exitCode = 1;
}

/**
 * `weft test`: types, style and the import rules first (they are quick and say most), then every test file, several at a
 * time. Test files that need root make their own namespaces, so they run beside each other.
 */
import { spawn } from 'node:child_process';
import { readdirSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { WeftError } from '../../base/errors.ts';

const home = path.join(import.meta.dirname, '../../..');

export async function test(files: string[], options: { only?: string }): Promise<void> {
  if (process.getuid?.() !== 0)
    throw new WeftError('WEFT_NOT_ROOT', 'the tests make network namespaces and need root');
  const began = Date.now();
  const say = (text: string): void => void process.stdout.write(`weft test: ${text}\n`);
  const bin = (name: string): string => path.join(home, 'node_modules/.bin', name);

  if (files.length === 0) {
    say('types (tsc) and style (biome) …');
    const [types, style] = await Promise.all([
      run(bin('tsc'), ['--noEmit']),
      run('sh', ['scripts/biome.sh', 'check', '--error-on-warnings', '.']),
    ]);
    if (types !== 0 || style !== 0) {
      say(`failed: ${types === 0 ? 'style' : 'types'}`);
      process.exitCode = 1;
      return;
    }
  }
  const chosen = files.length > 0 ? files.map((file) => path.resolve(file)) : testFiles();
  say(`${chosen.length} test files …`);
  const code = await run(process.execPath, [
    '--disable-warning=ExperimentalWarning',
    '--test',
    // Kernel tests mostly wait, so a few more than there are cores.
    `--test-concurrency=${Math.max(3, os.availableParallelism() + 1)}`,
    '--test-timeout=300000',
    ...(options.only ? [`--test-name-pattern=${options.only}`] : []),
    ...(process.env.CI ? ['--test-reporter=spec'] : []),
    ...chosen,
  ]);
  say(`${code === 0 ? 'passed' : 'FAILED'} in ${Math.round((Date.now() - began) / 1000)} s`);
  process.exitCode = code;
}

/** Long ones first, so that none of them starts when all others are done. */
function testFiles(): string[] {
  const files = ['src', 'bench'].flatMap((folder) =>
    readdirSync(path.join(home, folder), { recursive: true, encoding: 'utf8' })
      .filter((file) => file.endsWith('.test.ts'))
      .map((file) => path.join(home, folder, file)),
  );
  const weight = (file: string): number =>
    file.endsWith('.lab.test.ts') ? 0 : file.endsWith('.netns.test.ts') ? 1 : 2;
  return files.sort((a, b) => weight(a) - weight(b) || a.localeCompare(b));
}

function run(command: string, args: string[]): Promise<number> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd: home, stdio: ['ignore', 'inherit', 'inherit'] });
    child.once('error', reject);
    child.once('close', (code, signal) => resolve(code ?? (signal ? 1 : 0)));
  });
}

/** The command line as a process: what is wrong is named in a line, and nothing lives on. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { promisify } from 'node:util';

const MAIN = path.join(import.meta.dirname, 'main.ts');
const folder = mkdtempSync(path.join(tmpdir(), 'weft-main-'));
after(() => rmSync(folder, { recursive: true }));

interface Failure {
  code: number;
  stderr: string;
}

/** Fails if the process does not end by itself. */
async function refused(...args: string[]): Promise<string> {
  const run = promisify(execFile)(process.execPath, [MAIN, ...args], { timeout: 20_000 });
  const { code, stderr } = await run.then(
    () => assert.fail(`${args.join(' ')} succeeded`),
    (error: unknown) => error as Failure,
  );
  assert.equal(code, 1, stderr);
  assert.match(
    stderr,
    /^weft: WEFT_[A-Z_]+: [^\n]+\n {6}[^\n]+\n$/,
    'one line for the error, one for what to do',
  );
  return stderr;
}

test('an API server that cannot have its controllers does not serve on without them', async () => {
  const args = ['apiserver', '--data-dir', path.join(folder, 'api'), '--listen', '127.0.0.1:0'];
  assert.match(await refused(...args, '--cluster-cidr', 'nonsense'), /WEFT_BAD_ADDRESS: "nonsense"/);
});

test('join-config makes credentials of a CA that is there, for a node that can be', async () => {
  const dataDir = path.join(folder, 'none');
  const join = (node: string, server: string): Promise<string> =>
    refused(
      ...['join-config', '--data-dir', dataDir, '--node', node, '--server', server],
      ...['--out', path.join(folder, 'out')],
    );
  assert.match(await join('two', 'https://192.0.2.1:6443'), /no API server has made a CA there/);
  assert.match(await join('../two', 'https://192.0.2.1:6443'), /not a name for a node/);
  assert.match(await join('two', '192.0.2.1:6443'), /not https:/);
  assert.equal(existsSync(dataDir), false);
});

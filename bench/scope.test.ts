import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { run, Scope } from './scope.ts';

const alive = (pid: number): boolean => existsSync(`/proc/${pid}`);

test('the end of a scope undoes everything, last first, and goes on past what fails', async () => {
  const undone: string[] = [];
  const scope = new Scope();
  const folder = scope.folder('test');
  scope.defer('first', () => undone.push('first'));
  scope.defer('broken', () => {
    throw new Error('no');
  });
  scope.defer('last', () => undone.push('last'));
  const child = scope.start(['sh', '-c', 'trap "" TERM; sleep 60 & wait'], { stdio: 'ignore' });
  assert.ok(existsSync(folder) && alive(child.pid!));
  await assert.rejects(async () => await scope[Symbol.asyncDispose](), /cannot broken/);
  assert.deepEqual(undone, ['last', 'first']);
  assert.ok(!existsSync(folder) && !alive(child.pid!));
});

test('what a run that was killed left behind is removed by the next', async () => {
  const folder = '/var/tmp/weft-bench-999999999-gone';
  const netns = 'weftbench-999999999-gone';
  mkdirSync(path.join(folder, 'deep'), { recursive: true });
  await run(['ip', 'netns', 'add', netns]);
  await using _scope = new Scope();
  assert.ok(!existsSync(folder) && !existsSync(`/run/netns/${netns}`));
});

test('a program that fails or hangs is named with what it said', async () => {
  await assert.rejects(run(['sh', '-c', 'echo why >&2; exit 4']), /sh -c .*: exit code 4: why/);
  await assert.rejects(run(['sleep', '60'], { timeout: 50 }), /sleep 60: still running after 0.05 s/);
  assert.equal((await run(['cat'], { stdin: 'through' })).stdout, 'through');
});

test('until polls, and gives up by name', async () => {
  await using scope = new Scope();
  let left = 3;
  assert.equal(await scope.until('three', 5000, () => (--left === 0 ? 'done' : undefined)), 'done');
  await assert.rejects(
    scope.until('never', 30, () => undefined),
    /never: not within 0.03 s/,
  );
});

test('SIGTERM stops what is under way, and everything is undone', async () => {
  const script = `
    import { Scope } from ${JSON.stringify(path.join(import.meta.dirname, 'scope.ts'))};
    try {
      await using scope = new Scope();
      const folder = scope.folder('signal');
      const child = scope.start(['sleep', '60'], { stdio: 'ignore' });
      console.log(folder, child.pid);
      await scope.run(['sleep', '60']);
    } catch (error) {
      console.log(error.message);
    }`;
  const child = spawn(process.execPath, ['--input-type=module', '--eval', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text;
    if (output.split('\n').length === 2) child.kill('SIGTERM');
  });
  const code = await new Promise((resolve) => child.once('close', resolve));
  const [folder, pid] = output.split('\n')[0]!.split(' ');
  assert.equal(code, 0);
  assert.match(output, /stopped by SIGTERM/);
  assert.ok(!existsSync(folder!) && !alive(Number(pid)));
});

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { test } from 'node:test';
import { execute } from './spawn.ts';

const descriptors = (): number => readdirSync('/proc/self/fd').length;

test('a program gets its stdin, arguments and environment, and nothing of ours', () => {
  const script = 'cat; echo "$0 $1 $NAME $HOME" >&2; exit 3';
  const done = execute({
    program: '/bin/sh',
    args: ['-c', script, 'zero', 'one'],
    env: { NAME: 'value' },
    stdin: 'input',
  });
  assert.deepEqual(
    { ...done, micros: 0 },
    { micros: 0, code: 3, stdout: 'input', stderr: 'zero one value \n' },
  );
  assert.ok(done.micros > 0);
});

test('no descriptor of ours is inherited', () => {
  const program = '/bin/ls';
  const args = ['/proc/self/fd'];
  const { stdout } = execute({ program, args });
  assert.equal(stdout, spawnSync(program, args, { encoding: 'utf8' }).stdout);
});

test('a signal is an exit code of its own', () => {
  assert.equal(execute({ program: '/bin/sh', args: ['-c', 'kill -9 $$'] }).code, 137);
});

test('what cannot be started throws, and no descriptor is left', () => {
  execute({ program: '/bin/true' });
  const before = descriptors();
  for (let i = 0; i < 20; i++) {
    assert.throws(() => execute({ program: '/nonexistent' }), /posix_spawn\(\/nonexistent\): errno 2/);
    execute({ program: '/bin/true' });
  }
  assert.throws(() => execute({ program: '/bin/true', stdin: 'x'.repeat(65_536) }), /does not fit/);
  assert.equal(descriptors(), before);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { versionText } from './commands/version.ts';
import { afterPod, program } from './program.ts';

test('a lab needs root, and says so before anything else', { skip: process.geteuid?.() !== 0 }, async () => {
  process.seteuid!(65_534);
  try {
    for (const line of [
      ['up'],
      ['down'],
      ['status'],
      ['exec', 'pod', 'true'],
      ['logs', 'pod'],
      ['kubeconfig'],
    ])
      await assert.rejects(program().parseAsync(line, { from: 'user' }), { code: 'WEFT_NOT_ROOT' }, line[0]!);
  } finally {
    process.seteuid!(0);
  }
});

test('exec: options may follow the pod, up to -- or the program', () => {
  const exec = program().commands.find((command) => command.name() === 'exec')!;
  exec.configureOutput({ writeErr: () => {} });
  for (const [line, argv, options] of [
    ['ls -l', ['ls', '-l'], {}],
    ['-- ls -l', ['ls', '-l'], {}],
    ['-c side -- ls -c', ['ls', '-c'], { container: 'side' }],
    ['-c side ls -c x', ['ls', '-c', 'x'], { container: 'side' }],
    [
      '--container=side -n kube-system -l two -- sh',
      ['sh'],
      { container: 'side', namespace: 'kube-system', lab: 'two' },
    ],
    ['-- -x', ['-x'], {}],
    ['git checkout -- file', ['git', 'checkout', '--', 'file'], {}],
    ['-- env -- a', ['env', '--', 'a'], {}],
  ] as const) {
    assert.deepEqual(afterPod(exec, line.split(' ')), { argv, options }, line);
  }
  assert.throws(() => afterPod(exec, ['-x', '--', 'ls']), { code: 'commander.unknownOption' });
  assert.throws(() => afterPod(exec, ['-c', 'side']), { code: 'commander.missingArgument' });
});

test('exec asks the lab that is named after the pod', { skip: process.geteuid?.() !== 0 }, async () => {
  const line = ['exec', '-l', 'before', 'pod', '-l', `none${process.pid}`, '--', 'true'];
  await assert.rejects(program().parseAsync(line, { from: 'user' }), new RegExp(`none${process.pid}`));
});

test('--version says what version does', () => {
  const out: string[] = [];
  const weft = program().configureOutput({ writeOut: (text) => out.push(text) });
  assert.throws(() => weft.parse(['--version'], { from: 'user' }), {
    code: 'commander.version',
    exitCode: 0,
  });
  assert.deepEqual(out, [`${versionText()}\n`]);
  assert.match(versionText(), /^weft \d+\.\d+\.\d+/);
});

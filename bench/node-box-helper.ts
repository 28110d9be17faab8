/** The process inside a {@link NodeBox}: does what it is told over IPC, and ends when nobody is there to tell it. */
import { execFileSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { messageOf } from '../src/base/errors.ts';
import { createNetns } from '../src/kernel/netns.ts';
import type { HelperReply, HelperRequest } from './node-box.ts';
import { execute } from './spawn.ts';

const [folder, hostname] = process.argv.slice(2);
const say = (reply: HelperReply): void => void process.send!(reply);

function handle(request: HelperRequest): HelperReply {
  switch (request.kind) {
    case 'netns':
      for (const path of request.paths) createNetns(path);
      return { kind: 'done' };
    case 'execute':
      return { kind: 'executed', results: request.executions.map(execute) };
  }
}

process.on('message', (request: HelperRequest) => {
  try {
    say(handle(request));
  } catch (error) {
    say({ kind: 'failed', message: messageOf(error) });
  }
});
process.on('disconnect', () => process.exit());

// All of this is seen in here only. /sys of this network namespace, for programs that look at devices there.
const inside = (...argv: [string, ...string[]]): void => void execFileSync(argv[0], argv.slice(1));
try {
  inside('hostname', hostname!);
  inside('ip', 'link', 'set', 'lo', 'up');
  inside('mount', '-t', 'sysfs', '-o', 'nosuid,nodev,noexec', 'sysfs', '/sys');
  mkdirSync(`${folder}/netns`);
  inside('mount', '-t', 'tmpfs', 'tmpfs', `${folder}/netns`);
  say({ kind: 'ready' });
} catch (error) {
  say({ kind: 'failed', message: messageOf(error) });
}

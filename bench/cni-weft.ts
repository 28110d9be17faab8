/**
 * Weft on one node: an API server and the agent, both as a user runs them, and the plugin and configuration that the agent
 * installs. Its durable state lies on disk, because durability before an answer is part of what an ADD costs.
 */
import type { ChildProcess } from 'node:child_process';
import { mkdirSync, openSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { type CniContender, cniCall } from './cni-contender.ts';
import { NodeBox } from './node-box.ts';
import type { Scope } from './scope.ts';
import { WEFT, WEFT_AGENT } from './weft-lab.ts';

const NODE = 'bench';
const CLUSTER_CIDRS = ['10.244.0.0/16', 'fd00:10:244::/48'];
/** Half the cluster for one node: room for thousands of pods, and for addresses at rest after release. */
const POD_CIDRS = ['10.244.0.0/17', 'fd00:10:244::/64'];
const NODE_IPS = ['192.0.2.10', '2001:db8::10'];
const SERVER = 'https://127.0.0.1:6443';
const READY_MS = 20_000;

export async function weftContender(scope: Scope): Promise<CniContender> {
  const box = await NodeBox.open(scope, 'weft');
  const at = (name: string): string => path.join(box.folder, name);
  const log = openSync(at('log'), 'a');
  try {
    await makeUnderlay(box);
    const apiserver = box.start(
      [
        ...[...WEFT, 'apiserver', '--data-dir', at('apiserver'), '--listen', '127.0.0.1:6443'],
        ...['--advertise', '127.0.0.1', ...CLUSTER_CIDRS.flatMap((cidr) => ['--cluster-cidr', cidr])],
        ...['--admin-kubeconfig', at('admin'), '--server', SERVER],
      ],
      log,
    );
    const kubectl = (args: string[], stdin?: string): Promise<string> =>
      box.run(['kubectl', '--kubeconfig', at('admin'), ...args], stdin).then(({ stdout }) => stdout);
    await scope.until('the API server', READY_MS, () => {
      mustRun('API server', apiserver);
      return kubectl(['get', '--raw', '/readyz']).catch(() => undefined);
    });
    await box.run([
      ...[...WEFT, 'join-config', '--data-dir', at('apiserver')],
      ...['--node', NODE, '--server', SERVER, '--out', at('kubeconfig')],
    ]);
    const node = { metadata: { name: NODE }, spec: { podCIDR: POD_CIDRS[0], podCIDRs: POD_CIDRS } };
    await kubectl(['create', '-f', '-'], JSON.stringify({ apiVersion: 'v1', kind: 'Node', ...node }));

    const [binDir, confDir] = [at('bin'), at('conf')];
    for (const folder of [binDir, confDir, at('run'), at('state')]) mkdirSync(folder, { recursive: true });
    writeFileSync(
      at('agent.json'),
      JSON.stringify({
        nodeName: NODE,
        kubeconfig: at('kubeconfig'),
        clusterCIDRs: CLUSTER_CIDRS,
        nodeIPs: NODE_IPS,
        cni: { socket: at('run/cni.sock'), binDir, confDir, spoolDir: at('state/cni-spool') },
        stateDir: at('state'),
      }),
    );
    const agent = box.start([...WEFT_AGENT, '--config', at('agent.json')], log);
    const config = await scope.until('the installed CNI configuration', READY_MS, () => {
      mustRun('agent', agent);
      return installedConfig(confDir);
    });
    const contender: CniContender = {
      name: 'weft',
      box,
      program: path.join(binDir, String(config.type)),
      binDir,
      config,
      log: () => tail(at('log')),
      resident: () => ({ agent: residentOf(agent.pid!), apiserver: residentOf(apiserver.pid!) }),
    };
    await scope.until('STATUS of the plugin', READY_MS, async () => {
      const [status] = await box.execute([cniCall(contender, 'STATUS', 0)]);
      return status!.code === 0 ? true : undefined;
    });
    return contender;
  } catch (error) {
    scope.check();
    throw new Error(`weft did not start; its log ends:\n${tail(at('log'))}`, { cause: error });
  }
}

function mustRun(what: string, { exitCode, signalCode }: ChildProcess): void {
  const ended = exitCode ?? signalCode;
  if (ended !== null) throw new Error(`the ${what} ended (${ended})`);
}

/** The device that the agent takes for its way to other nodes. There are none. */
async function makeUnderlay(box: NodeBox): Promise<void> {
  await box.run(
    ['ip', '-batch', '-'],
    `link add eth0 type veth peer name cable
     link set cable up
     link set eth0 up
     address add ${NODE_IPS[0]}/24 dev eth0
     address add ${NODE_IPS[1]}/64 dev eth0 nodad
     route add default via 192.0.2.1
    `,
  );
}

/** As a runtime makes it: name and version of the list, and the plugin's own part. */
function installedConfig(confDir: string): (Record<string, unknown> & { type: string }) | undefined {
  const file = readdirSync(confDir).find((name) => name.endsWith('.conflist'));
  if (!file) return undefined;
  const list = JSON.parse(readFileSync(path.join(confDir, file), 'utf8')) as {
    name: string;
    cniVersion: string;
    plugins: Array<Record<string, unknown> & { type: string }>;
  };
  return { ...list.plugins[0]!, name: list.name, cniVersion: list.cniVersion };
}

/** Bytes resident of all processes of a session (field 6 of proc_pid_stat(5)): a daemon and whatever it started. */
function residentOf(session: number): number {
  let bytes = 0;
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    try {
      const stat = readFileSync(`/proc/${entry}/stat`, 'latin1');
      if (Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[3]) !== session) continue;
      const kilobytes = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${entry}/status`, 'latin1'))?.[1];
      bytes += Number(kilobytes ?? 0) * 1024;
    } catch {
      // It ended while we looked.
    }
  }
  return bytes;
}

function tail(file: string): string {
  try {
    return readFileSync(file, 'utf8')
      .trimEnd()
      .split('\n')
      .slice(-15)
      .map((line) => line.slice(0, 400))
      .join('\n');
  } catch {
    return '(no log)';
  }
}

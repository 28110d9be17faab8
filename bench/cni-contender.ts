/** A CNI plugin to be measured, installed on a node of its own. */
import type { NodeBox } from './node-box.ts';
import type { Executed, Execution } from './spawn.ts';

export interface CniContender {
  /** e.g. `weft`, `bridge + host-local`. */
  name: string;
  box: NodeBox;
  /** The plugin's file. */
  program: string;
  /** Where it finds plugins that it delegates to (CNI_PATH). */
  binDir: string;
  /** Its network configuration: what a runtime gives it on stdin. */
  config: Record<string, unknown>;
  /** The last lines of its daemons' logs. */
  log?(): string;
  /** Resident memory in bytes of the processes that must run on the node for the plugin to work. */
  resident?(): { agent: number; apiserver: number };
}

/** How many devices of pods the node still has: those whose other end is in another namespace. */
export async function podLinks({ box }: CniContender): Promise<number> {
  const { stdout } = await box.run(['ip', '-json', 'link', 'show', 'type', 'veth']);
  const links = JSON.parse(stdout) as Array<{ link_netnsid?: number }>;
  return links.filter((link) => link.link_netnsid !== undefined).length;
}

export interface CniResult {
  ips?: Array<{ address: string }>;
}

const IFNAME = 'eth0';

/** One call as containerd makes it (CNI specification 1.1.0, section 2: "Execution Protocol"). */
export function cniCall(
  contender: CniContender,
  command: 'ADD' | 'DEL' | 'STATUS',
  pod: number,
  prevResult?: CniResult,
): Execution {
  const id = `bench-${pod}`;
  return {
    program: contender.program,
    env: {
      PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
      CNI_COMMAND: command,
      CNI_PATH: contender.binDir,
      ...(command !== 'STATUS' && {
        CNI_CONTAINERID: id,
        CNI_NETNS: contender.box.netnsPath(pod),
        CNI_IFNAME: IFNAME,
        CNI_ARGS: `IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=${id};K8S_POD_INFRA_CONTAINER_ID=${id}`,
      }),
    },
    stdin: JSON.stringify({
      ...contender.config,
      // STATUS is new in 1.1.0; a configuration may be for older runtimes.
      ...(command === 'STATUS' && { cniVersion: '1.1.0' }),
      ...(prevResult && { prevResult }),
    }),
  };
}

/** What a plugin said of a call. @throws Error with the plugin's own words when it refused */
export function answerOf(
  contender: CniContender,
  call: Execution,
  executed: Executed,
): CniResult | undefined {
  if (executed.code !== 0) {
    const words = executed.stdout.trim() || executed.stderr.trim();
    throw new Error(
      `${contender.name}: ${call.env?.CNI_COMMAND} ${call.env?.CNI_CONTAINERID}: exit code ${executed.code}: ${words}` +
        (contender.log ? `\nits log ends:\n${contender.log()}` : ''),
    );
  }
  return executed.stdout.trim() === '' ? undefined : (JSON.parse(executed.stdout) as CniResult);
}

/**
 * That the plugin did what it was asked: the pod has every address it was said to have, or no interface after DEL.
 * @throws Error
 */
export async function verifyPod(contender: CniContender, pod: number, result?: CniResult): Promise<void> {
  const { stdout } = await contender.box.run([
    'nsenter',
    `--net=${contender.box.netnsPath(pod)}`,
    'ip',
    '-json',
    'address',
  ]);
  const links = JSON.parse(stdout) as Array<{
    ifname: string;
    flags: string[];
    addr_info: Array<{ local: string; prefixlen: number; tentative?: boolean }>;
  }>;
  const link = links.find((candidate) => candidate.ifname === IFNAME);
  const fail = (what: string): never => {
    throw new Error(`${contender.name}: pod ${pod} ${what}: ${JSON.stringify(link)}`);
  };
  if (!result) {
    if (link) fail(`still has ${IFNAME}`);
    return;
  }
  // Not operstate: the kernel notices a carrier up to a second later.
  if (!link?.flags.includes('UP')) fail(`has no ${IFNAME} that is up`);
  if (!result.ips?.length) fail('was given no address');
  for (const { address } of result.ips ?? []) {
    const has = link?.addr_info.some(
      (info) => `${info.local}/${info.prefixlen}` === address && info.tentative !== true,
    );
    if (!has) fail(`does not have ${address}`);
  }
}

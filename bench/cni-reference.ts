/**
 * The peers: the reference plugins of the CNI project, as Debian packages them, each configured as its own documentation shows
 * (https://www.cni.dev/plugins/current/main/bridge/ and …/ptp/). For `bridge` that includes masquerading, which Weft's pods have
 * too and which costs the plugin several runs of iptables; so `bridge` is also measured without it.
 *
 * What both are spared is IPv6: the bridge plugin would wait for duplicate address detection.
 */
import { existsSync } from 'node:fs';
import { WeftError } from '../src/base/errors.ts';
import type { CniContender } from './cni-contender.ts';
import { NodeBox } from './node-box.ts';
import type { Scope } from './scope.ts';

const BIN = '/usr/lib/cni';
/** BR_MAX_PORTS of the kernel's bridge is 1024. */
const MAX_BRIDGE_PORTS = 1023;

export async function referenceContenders(scope: Scope, pods: number): Promise<CniContender[]> {
  const contenders: CniContender[] = [];
  if (pods <= MAX_BRIDGE_PORTS) {
    const documented = { bridge: 'cni0', isDefaultGateway: true, hairpinMode: true };
    contenders.push(await reference(scope, 'bridge', { ...documented, ipMasq: true }));
    contenders.push(await reference(scope, 'bridge', documented, ', no ipMasq'));
  }
  contenders.push(await reference(scope, 'ptp', {}));
  return contenders;
}

async function reference(
  scope: Scope,
  type: 'bridge' | 'ptp',
  options: Record<string, unknown>,
  remark = '',
): Promise<CniContender> {
  const program = `${BIN}/${type}`;
  for (const file of [program, `${BIN}/host-local`]) {
    if (!existsSync(file)) {
      throw new WeftError('WEFT_SETUP_FAILED', `${file} is missing`, {
        hint: 'apt-get install containernetworking-plugins',
      });
    }
  }
  const box = await NodeBox.open(scope, type);
  return {
    name: `${type} + host-local${remark}`,
    box,
    program,
    binDir: BIN,
    config: {
      cniVersion: '1.0.0',
      name: `bench-${type}`,
      type,
      ...options,
      ipam: {
        type: 'host-local',
        dataDir: `${box.folder}/data`,
        ranges: [[{ subnet: '10.88.0.0/16' }]],
        ...(type === 'ptp' && { routes: [{ dst: '0.0.0.0/0' }] }),
      },
    },
  };
}

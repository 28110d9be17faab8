/** `weft join-config`: what the agent of another machine needs to speak to this API server. */
import { existsSync } from 'node:fs';
import path from 'node:path';
import { ensureCa, issueClient, writeKubeconfig } from '../../apiserver/pki.ts';
import { WeftError } from '../../base/errors.ts';

/** A DNS subdomain, as the API asks of a Node's name (RFC 1123). */
const NODE_NAME = /^(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;

export async function joinConfig(options: {
  dataDir: string;
  node: string;
  server: string;
  out: string;
}): Promise<void> {
  if (!NODE_NAME.test(options.node))
    throw new WeftError('WEFT_BAD_CONFIG', `--node ${JSON.stringify(options.node)}: not a name for a node`);
  if (!URL.canParse(options.server) || new URL(options.server).protocol !== 'https:')
    throw new WeftError('WEFT_BAD_CONFIG', `--server ${options.server}: not https://address:port`);
  const pki = path.join(options.dataDir, 'pki');
  // A CA made here would be one that no server has.
  if (!existsSync(path.join(pki, 'ca.crt')))
    throw new WeftError(
      'WEFT_BAD_CONFIG',
      `--data-dir ${options.dataDir}: no API server has made a CA there`,
    );
  const ca = await ensureCa(pki);
  const client = await issueClient(pki, { user: `system:node:${options.node}`, groups: ['system:nodes'] });
  writeKubeconfig(options.out, { server: options.server, ca: ca.cert, ...client });
  process.stdout.write(
    `${options.out} written. On ${options.node}:\n\n` +
      `  printf 'nodeName: ${options.node}\\nkubeconfig: ${options.out}\\n' > /etc/weft/agent.yaml\n` +
      '  ./weft agent --config /etc/weft/agent.yaml\n',
  );
}

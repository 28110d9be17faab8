/** `weft join-config`: what the agent of another machine needs to speak to this API server. */
import path from 'node:path';
import { ensureCa, issueClient, writeKubeconfig } from '../../apiserver/pki.ts';

export async function joinConfig(options: {
  dataDir: string;
  node: string;
  server: string;
  out: string;
}): Promise<void> {
  const pki = path.join(options.dataDir, 'pki');
  const ca = await ensureCa(pki);
  const client = await issueClient(pki, { user: `system:node:${options.node}`, groups: ['system:nodes'] });
  writeKubeconfig(options.out, { server: options.server, ca: ca.cert, ...client });
  process.stdout.write(
    `${options.out} written. On ${options.node}:\n\n` +
      `  printf 'nodeName: ${options.node}\\nkubeconfig: ${options.out}\\n' > /etc/weft/agent.yaml\n` +
      '  ./weft agent --config /etc/weft/agent.yaml\n',
  );
}

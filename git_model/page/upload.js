// A file that is chosen, dropped or pasted is sent to the page's own address for files. The answer is
// a token; the event that it comes with reads the file.
const input = element.querySelector('input');
const zone = element.querySelector('label');
const problem = element.querySelector('.notice');

const tell = (text) => {
  problem.textContent = text;
  problem.hidden = !text;
  if (text) problem.scrollIntoView({ behavior: 'smooth', block: 'nearest' });
};

const send = async (file) => {
  if (!file || zone.ariaBusy === 'true') return;
  const most = Number(input.dataset.most);
  if (file.size > most) {
    tell(`The file is larger than ${most / 2 ** 20} MB.`);
    return;
  }
  tell('');
  zone.ariaBusy = 'true';
  try {
    const answer = await fetch('upload', { method: 'POST', body: file });
    const text = (await answer.text()).trim();
    if (answer.ok) trigger('upload', { token: text });
    else tell(text);
  } catch {
    tell('The file could not be sent: it is a folder, it has changed, or the page’s server has ended.');
  }
  zone.ariaBusy = 'false';
  input.value = '';
};

const over = (event) => {
  if (!event.dataTransfer.types.includes('Files')) return;
  event.preventDefault();
  zone.classList.toggle('over', event.type === 'dragover');
  if (event.type === 'drop') send(event.dataTransfer.files[0]);
};

input.addEventListener('change', () => send(input.files[0]));
for (const name of ['dragover', 'dragleave', 'drop']) zone.addEventListener(name, over);
document.addEventListener('paste', (event) => {
  const file = event.clipboardData.files[0];
  if (!file || !element.isConnected) return;
  event.preventDefault();
  send(file);
});
// What is done next makes the last file's error old.
document.addEventListener('click', (event) => {
  if (event.target.closest('button')) tell('');
});

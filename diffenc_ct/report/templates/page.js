// The numbers of the point that is nearest to the pointer. Without scripts each point's own <title> shows them.
(() => {
  const tip = document.getElementById('tip');
  let shown = null;
  const hide = () => { tip.hidden = true; if (shown) shown.classList.remove('near'); shown = null; };
  for (const chart of document.querySelectorAll('svg.chart')) {
    const points = [...chart.querySelectorAll('circle')].map(circle => {
      const title = circle.querySelector('title');
      const text = title.textContent;
      title.remove();  // or the browser would show it a second time
      return {circle, text, x: circle.cx.baseVal.value, y: circle.cy.baseVal.value};
    });
    const show = event => {
      const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(chart.getScreenCTM().inverse());
      let near = null, least = 40 ** 2;
      for (const point of points) {
        const distance = (point.x - place.x) ** 2 + (point.y - place.y) ** 2;
        if (distance < least) [near, least] = [point, distance];
      }
      hide();
      if (!near) return;
      shown = near.circle;
      shown.classList.add('near');
      tip.textContent = near.text;
      tip.hidden = false;
      const at = shown.getBoundingClientRect(), own = tip.getBoundingClientRect();
      const left = Math.min(Math.max(8, at.left + at.width / 2 - own.width / 2), innerWidth - own.width - 8);
      tip.style.left = left + 'px';
      tip.style.top = (at.top - own.height - 8 > 0 ? at.top - own.height - 8 : at.bottom + 8) + 'px';
    };
    chart.addEventListener('pointermove', show);
    chart.addEventListener('pointerdown', show);
    chart.addEventListener('pointerleave', hide);
  }
  addEventListener('scroll', hide, {passive: true});
})();
